package loopback

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"time"
)

// ready is the first line that a server prints.
type ready struct {
	Address string
}

// A Usage is what a server has used since it started.
type Usage struct {
	// CPU is the processor time of the process, by getrusage.
	CPU time.Duration
	// Mallocs and Bytes count what was allocated.
	Mallocs, Bytes uint64
}

func (u Usage) minus(before Usage) Usage {
	return Usage{u.CPU - before.CPU, u.Mallocs - before.Mallocs, u.Bytes - before.Bytes}
}

// Serve serves h on a free port of 127.0.0.1 until in ends, as it does when the
// process that started the server ends. It prints the address on out and then, for
// every line that it reads, what the process has used, each as a line of JSON.
func Serve(in io.Reader, out io.Writer, h http.Handler) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // It needs no look-up.
	if err != nil {
		return err
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	defer func() { _ = server.Close() }()
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()

	replies := json.NewEncoder(out)
	if err := replies.Encode(ready{listener.Addr().String()}); err != nil {
		return err
	}
	for questions := bufio.NewScanner(in); questions.Scan(); {
		select {
		case err := <-failed:
			return err
		default:
		}
		used, err := usage()
		if err != nil {
			return err
		}
		if err := replies.Encode(used); err != nil {
			return err
		}
	}
	return nil
}

func usage() (Usage, error) {
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	var times syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &times); err != nil {
		return Usage{}, err
	}
	cpu := time.Duration(times.Utime.Nano() + times.Stime.Nano())
	return Usage{CPU: cpu, Mallocs: memory.Mallocs, Bytes: memory.TotalAlloc}, nil
}
