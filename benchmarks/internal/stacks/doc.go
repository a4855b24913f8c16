// Package stacks builds the whole servers that are measured beside each other:
// the same service bare, behind usher, and behind the parts that are usual today.
//
//	stack, err := stacks.New(stacks.Config{Stack: stacks.Usher, Credential: stacks.Key})
//	...
//	defer stack.Close()
//	err = stack.Check() // before a clock is started
//	http.ListenAndServe("127.0.0.1:8080", stack)
//
// The requests that belong to a credential come from [Works]. Credentials are
// the same in every process, so a client needs nothing from the server.
//
// All three have the same router (chi) and the same handler for a note, so what
// one costs beyond [Bare] is what stands around the handler. Nothing here is for
// use outside of benchmarks: the credentials are public.
package stacks
