"""What a field is: which channel its name means, on which layer, of which kind and experiment."""
