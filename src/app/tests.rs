//! The gateway as a whole, on a store that can be told what to do.
