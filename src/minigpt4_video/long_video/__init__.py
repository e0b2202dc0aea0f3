"""Long videos: an index of clips, the clips that a question is about, and answers with their place in time."""
