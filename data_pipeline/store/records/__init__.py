"""What a store says of itself: manifest, lists of files and sources, believed as far as their checksums go."""
