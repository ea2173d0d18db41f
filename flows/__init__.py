"""What a person triggers or schedules. A flow reads top to bottom like the algorithm it carries out."""
