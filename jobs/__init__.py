"""Jobs: one short file per study, with its question, its source, and the figures to compare with."""
