"""Rules of de-identification as data: the profile of PS3.15, shapes of numbers, names and words."""
