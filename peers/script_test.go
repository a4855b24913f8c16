package peers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A script is a program of the directory node that runs until the test ends, and calls
// its methods one at a time.
type script struct {
	name   string
	in     io.Writer
	out    *bufio.Reader
	errors *lockedBuffer
}

// A scriptError is the error that a method of a script has thrown.
type scriptError struct {
	Code    string // or the name of the error's class
	Message string
}

func (e *scriptError) Error() string { return e.Code + ": " + e.Message }

// runScript starts a script. Without Node.js, or what make peers installs for it, the test
// is skipped, or fails where USHER_REQUIRE_SERVICES is 1.
func runScript(t *testing.T, name string) *script {
	t.Helper()
	node := program(t, "node")
	if _, err := os.Stat(filepath.Join("node", "node_modules")); err != nil {
		if os.Getenv("USHER_REQUIRE_SERVICES") == "1" {
			t.Fatal("the packages of npm are not installed")
		}
		t.Skip("the packages of npm are not installed: run make peers")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, node, "--import", "./runtime.js", name)
	cmd.Dir = "node"
	cmd.WaitDelay = 3 * time.Second
	s := &script{name: name, errors: new(lockedBuffer)}
	cmd.Stderr = s.errors
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s wrote:\n%s", name, s.errors.String())
		}
	})
	return s
}

// try calls a method and stores what it returns in result, unless that is nil. What the
// method throws is a scriptError.
func (s *script) try(t *testing.T, method string, params, result any) error {
	t.Helper()
	call, err := json.Marshal(map[string]any{"method": method, "params": params})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(s.in, "%s\n", call); err != nil {
		t.Fatalf("%s has ended: %v\n%s", s.name, err, s.errors.String())
	}
	line, err := s.out.ReadBytes('\n')
	if err != nil {
		t.Fatalf("%s has ended: %v\n%s", s.name, err, s.errors.String())
	}
	response := struct {
		Result any          `json:"result"`
		Error  *scriptError `json:"error"`
	}{Result: result}
	if err := json.Unmarshal(line, &response); err != nil {
		t.Fatalf("%s: %s: %v: %s", s.name, method, err, line)
	}
	if response.Error != nil {
		return response.Error
	}
	return nil
}

// call is try for a method that must not throw.
func (s *script) call(t *testing.T, method string, params, result any) {
	t.Helper()
	if err := s.try(t, method, params, result); err != nil {
		t.Fatalf("%s: %s: %v", s.name, method, err)
	}
}
