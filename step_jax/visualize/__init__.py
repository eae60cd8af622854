"""Pictures of what a detector does: drawn frames, the refinement montage, trainings on a page."""
