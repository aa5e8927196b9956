// Package media has the commands that publish files and view streams, by WHIP
// and WHEP, at any server that speaks these; they ask no admin API.
//
// A command ends its connections and goroutines before it returns.
package media
