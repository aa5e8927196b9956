// Package survey reads what the network says of itself, for people: the records
// held for a topic with their copies and faults, the streams of all nodes, and an
// overview that is kept while somebody looks at it. Records come from holders and
// nodes; the types of package api go out.
//
// [Overview.Run] is the only work of its own; all else ends with its caller.
package survey
