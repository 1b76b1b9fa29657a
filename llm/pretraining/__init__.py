"""How the shipped base model was made: vocabulary, corpus, training, exam."""
