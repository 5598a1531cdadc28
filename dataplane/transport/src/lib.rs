//! Two small traits between executor and node (messages; one-sided memory), in memory and over TCP
