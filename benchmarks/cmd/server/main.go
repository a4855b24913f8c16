// Server serves one of the stacks on a free port of 127.0.0.1, for the benchmarks over
// the loopback. It ends with its standard input; package loopback says what it prints.
package main

import (
	"errors"
	"flag"
	"log"
	"os"

	"github.com/usher-go/usher/benchmarks/internal/loopback"
	"github.com/usher-go/usher/benchmarks/internal/stacks"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("server: ")
	stack := flag.String("stack", string(stacks.Bare), "bare, usher or today")
	credential := flag.String("credential", string(stacks.Key), "what callers have: key or jwt")
	flag.Parse()
	if err := serve(stacks.Config{Stack: stacks.Name(*stack), Credential: stacks.Credential(*credential)}); err != nil {
		log.Fatal(err)
	}
}

func serve(c stacks.Config) error {
	stack, err := stacks.New(c)
	if err != nil {
		return err
	}
	if err = stack.Check(); err == nil {
		err = loopback.Serve(os.Stdin, os.Stdout, stack)
	}
	return errors.Join(err, stack.Close())
}
