"""Recording the Program of a converted model: stand-ins for its tensors run through it and note what they meet."""
