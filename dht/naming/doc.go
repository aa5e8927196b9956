// Package naming gives each stream one publisher.
//
// A [Registrar] claims a stream's name for a publisher at its node, and answers
// other nodes as a holder of the stream's records: it notes pending claims, and
// names the current publishers. It asks the voters (see [directory.Directory]),
// and every node that one of them names. A name is taken when most voters know
// of no other publisher and every node named has denied it itself. Of two nodes
// that claim a name at the same time the one with the smaller ID goes first:
// any two majorities have a voter in common.
//
// The input is claims, questions and answers; the output is questions, by
// functions of [Config]. A poll runs on its caller's goroutine; one goroutine
// per question belongs to the Registrar, whose Close waits for it. The ballot
// and the claims below it have neither goroutine nor clock.
package naming
