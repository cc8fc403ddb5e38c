"""What made the results and weights that come with the book; nothing imports it."""
