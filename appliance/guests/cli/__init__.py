"""The command line `schleuse`: few nouns and verbs, German and English, results on stdout, narration on stderr."""
