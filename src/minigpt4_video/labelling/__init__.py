"""Labelling: a collection of videos in, a caption or a reason for every planned row out."""
