"""Model files to tokens to logits: immutable Model, mutable Session. Knows no screen and no store."""
