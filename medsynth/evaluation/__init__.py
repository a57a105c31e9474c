"""How good synthetic skin photos are: like real ones, as asked for, diverse, and not copies. No Ray here."""
