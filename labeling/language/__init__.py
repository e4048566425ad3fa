"""Report language: sections, sentences, SUV and slice mentions, context, anatomy, as spaCy components."""
