"""The recipe of the bundled model: corpus, vocabulary, training, export, and a small trial."""
