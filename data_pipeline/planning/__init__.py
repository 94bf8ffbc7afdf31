"""What a store will hold and cost, told before it is written."""
