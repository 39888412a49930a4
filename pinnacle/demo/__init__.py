"""`pinnacle demo`: the main job on real text, told step by step."""
