// Package pb holds the messages of weir's record and reservation protocols,
// generated from dht.proto.
package pb

//go:generate sh -c "cd ../.. && go build -o .bench/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go && protoc --plugin=.bench/protoc-gen-go --go_out=. --go_opt=module=weir dht/pb/dht.proto"
