//! The S3 front: HTTP, SigV4 and XML in, typed gateway operations out
