// Package policies keeps the placement policy that a node has in force: the
// built-in one, that of a file which may change, or those that the network's
// operator signed, of which the last are kept on disk. It also compares two of
// them over the records published now.
//
// [File.Run] is the only work of its own.
package policies
