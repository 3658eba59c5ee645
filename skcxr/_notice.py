"""What is said wherever predictions are shown."""

RESEARCH_ONLY = "For research only, not for diagnosis."
