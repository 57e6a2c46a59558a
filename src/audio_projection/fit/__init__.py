"""The fit of the projector from text alone: compatibility report, layer probe, ridge regression, its refinement."""
