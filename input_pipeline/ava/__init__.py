"""AVA's pixels: from movies to clip records, twelve frames of every second from 900 to 1799.

python -m input_pipeline.prepare ava --videos DIR --annotations DIR --output DIR
"""
