<<<<<<< HEAD
"""What people read: tables put between marks.

Imports birdkit and every other package of train.
=======
"""Pages and tables that people read about a run and its settings.

Imports birdkit and every other room of train.
>>>>>>> h4
"""
