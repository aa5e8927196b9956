// Package testnets has the commands of weir testnet, which start, show and end
// many nodes on one machine, and the demonstration.
//
// The networks themselves are those of package testnet: started nodes are
// processes of their own and outlive the command. All goroutines of a
// demonstration end before its command returns.
package testnets
