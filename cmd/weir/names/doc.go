// Package names has the names of nodes as people read and write them: peer IDs
// in short, names that records claim, and which node a word means.
package names
