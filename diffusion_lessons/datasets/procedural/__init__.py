"""Pictures drawn in code: digits, animals, scenery, and the course's rabbit."""
