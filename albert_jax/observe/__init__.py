"""What a run says about itself: metrics, console, time, FLOPs, curves. Needs no device."""
