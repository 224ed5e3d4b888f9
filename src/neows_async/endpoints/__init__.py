"""What is known of an API's responses."""
