package loopback

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// A process is a server that runs [Serve].
type process struct {
	address string
	command *exec.Cmd
	in      io.WriteCloser
	replies *json.Decoder
}

// start runs the program with the arguments and GOMAXPROCS=procs, and waits until it
// serves.
func start(ctx context.Context, procs int, program string, arguments ...string) (*process, error) {
	c := exec.CommandContext(ctx, program, arguments...)
	c.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(procs))
	c.Stderr = os.Stderr
	c.WaitDelay = 10 * time.Second
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	p := &process{command: c, in: in, replies: json.NewDecoder(out)}
	var r ready
	if err := p.replies.Decode(&r); err != nil {
		return nil, fmt.Errorf("loopback: %s did not start: %w", program, errors.Join(err, p.stop()))
	}
	p.address = r.Address
	return p, nil
}

// usage asks what the process has used.
func (p *process) usage() (Usage, error) {
	var u Usage
	if _, err := io.WriteString(p.in, "\n"); err != nil {
		return u, err
	}
	return u, p.replies.Decode(&u)
}

// stop ends the process and waits until it has.
func (p *process) stop() error {
	_ = p.in.Close() // Wait says whether it ended well
	return p.command.Wait()
}
