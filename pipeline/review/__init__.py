"""What a physician looks at and what comes back: pages, pictures, decisions."""
