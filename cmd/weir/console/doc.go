// Package console serves browsers: the console, the player and the publisher,
// and what pages of other sites embed. The pages themselves are in package web.
//
// Handlers run on the goroutines of their requests; the list of other nodes for
// a stream is looked up once for all that ask.
package console
