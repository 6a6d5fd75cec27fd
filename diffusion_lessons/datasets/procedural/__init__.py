"""What is drawn in code: digits, animals, scenery."""
