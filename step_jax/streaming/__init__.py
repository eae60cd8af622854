"""Detection in whole videos of any length: streamed, in bounded memory, drawn on the way.

frames -> network_frames -> clip_windows -> video_rows (the detector) -> frame_detections ->
pictures and sightings; video_run puts them together for one video.
"""
