//! systemd (stand-in)
pub fn ready() {}
pub fn stopping() {}
