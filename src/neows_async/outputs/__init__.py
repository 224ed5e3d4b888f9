"""What is made of admitted pages."""
