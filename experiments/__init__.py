"""Studies: protocols as data, the beds they run on, and the tables made from what they wrote (results/)."""
