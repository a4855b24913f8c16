package peers_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"
)

// chromium is the browser of all tests. The first one that opens a page starts it.
var chromium browser

func TestMain(m *testing.M) {
	defer chromium.stop()
	m.Run()
}

// A browser is a Chromium without a window, which reaches nothing but the loopback. Its
// commands go through a pipe, and it ends when the pipe is closed, even if this process is
// killed.
type browser struct {
	mu       sync.Mutex
	cmd      *exec.Cmd
	commands *os.File
	profile  string
	output   lockedBuffer
	last     int
	pending  map[int]chan reply
}

// A reply is the result of a command, or its error.
type reply struct {
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

// start starts the browser unless it runs. Without Chromium the test is skipped, or fails
// where USHER_REQUIRE_SERVICES is 1.
func (b *browser) start(t *testing.T) {
	t.Helper()
	path := program(t, "chromium")
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cmd != nil {
		return
	}
	profile, err := os.MkdirTemp("", "chromium") //nolint:usetesting // It outlives the test.
	if err != nil {
		t.Fatal(err)
	}
	fromTest, commands, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	replies, toTest, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{
		"--headless", "--remote-debugging-pipe", "--user-data-dir=" + profile, "--disable-gpu", "--disable-dev-shm-usage",
		"--no-first-run", "--no-proxy-server", "--disable-background-networking", "--disable-component-update", "--disable-sync",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.*",
	}
	if os.Geteuid() == 0 {
		args = append(args, "--no-sandbox")
	}
	cmd := exec.CommandContext(context.Background(), path, args...)
	cmd.Env = append(os.Environ(), "HOME="+profile)
	cmd.ExtraFiles = []*os.File{fromTest, toTest}
	cmd.Stdout, cmd.Stderr = &b.output, &b.output
	cmd.WaitDelay = 3 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = fromTest.Close(), toTest.Close()
	b.cmd, b.commands, b.profile, b.pending = cmd, commands, profile, make(map[int]chan reply)
	go b.read(replies)
}

// read passes replies on until the browser has ended.
func (b *browser) read(replies *os.File) {
	defer func() { _ = replies.Close() }()
	r := bufio.NewReader(replies)
	for {
		message, err := r.ReadBytes(0)
		var got struct {
			ID int `json:"id"`
			reply
		}
		if err == nil {
			err = json.Unmarshal(message[:len(message)-1], &got)
		}
		b.mu.Lock()
		if err != nil {
			for _, c := range b.pending {
				close(c)
			}
			b.pending = nil
			b.mu.Unlock()
			return
		}
		if c := b.pending[got.ID]; c != nil {
			delete(b.pending, got.ID)
			c <- got.reply
		}
		b.mu.Unlock()
	}
}

// call executes a command of the DevTools protocol in a session, or in the browser
// itself for "", and stores its result unless that is nil.
func (b *browser) call(t *testing.T, session, method string, params, result any) {
	t.Helper()
	done := make(chan reply, 1)
	b.mu.Lock()
	b.last++
	command, err := json.Marshal(struct {
		ID      int    `json:"id"`
		Session string `json:"sessionId,omitempty"`
		Method  string `json:"method"`
		Params  any    `json:"params,omitempty"`
	}{b.last, session, method, params})
	if err == nil && b.pending == nil {
		err = fmt.Errorf("it has ended:\n%s", b.output.String())
	}
	if err == nil {
		b.pending[b.last] = done
		_, err = b.commands.Write(append(command, 0))
	}
	b.mu.Unlock()
	if err != nil {
		t.Fatalf("chromium: %v", err)
	}
	select {
	case got, ok := <-done:
		switch {
		case !ok:
			t.Fatalf("chromium: %s: it has ended:\n%s", method, b.output.String())
		case got.Error != nil:
			t.Fatalf("chromium: %s: %s", method, got.Error.Message)
		case result != nil:
			if err := json.Unmarshal(got.Result, result); err != nil {
				t.Fatalf("chromium: %s: %v: %s", method, err, got.Result)
			}
		}
	case <-time.After(time.Minute):
		t.Fatalf("chromium: %s has not ended:\n%s", method, b.output.String())
	}
}

// stop ends the browser if it runs.
func (b *browser) stop() {
	if b.cmd == nil {
		return
	}
	_ = b.commands.Close()
	kill := time.AfterFunc(10*time.Second, func() { _ = b.cmd.Process.Kill() })
	_ = b.cmd.Wait()
	kill.Stop()
	_ = os.RemoveAll(b.profile)
}

// A page is a tab with cookies of its own.
type page struct{ context, target, session string }

// open opens the page at url.
func (b *browser) open(t *testing.T, url string) *page {
	t.Helper()
	b.start(t)
	var p page
	var made struct{ BrowserContextID, TargetID, SessionID string }
	b.call(t, "", "Target.createBrowserContext", nil, &made)
	p.context = made.BrowserContextID
	t.Cleanup(func() { b.call(t, "", "Target.disposeBrowserContext", object{"browserContextId": p.context}, nil) })
	b.call(t, "", "Target.createTarget", object{"url": "about:blank", "browserContextId": p.context}, &made)
	b.call(t, "", "Target.attachToTarget", object{"targetId": made.TargetID, "flatten": true}, &made)
	p.target, p.session = made.TargetID, made.SessionID
	if failure := p.visit(t, url); failure != "" {
		t.Fatalf("%s: %s", url, failure)
	}
	return &p
}

// visit leads the tab to url, and returns why that failed.
func (p *page) visit(t *testing.T, url string) (failure string) {
	t.Helper()
	var visited struct{ ErrorText string }
	chromium.call(t, p.session, "Page.navigate", object{"url": url}, &visited)
	return visited.ErrorText
}

// run runs the body of an async function in the page, whose parameters are args, and
// stores what it returns in result, unless that is nil. What the script throws fails the
// test.
func (p *page) run(t *testing.T, result any, script string, args ...any) {
	t.Helper()
	list, err := json.Marshal(append([]any{}, args...))
	if err != nil {
		t.Fatal(err)
	}
	var ran struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	chromium.call(t, p.session, "Runtime.evaluate", object{
		"expression":   fmt.Sprintf("(async (...args) => {%s})(...%s)", script, list),
		"awaitPromise": true, "returnByValue": true,
	}, &ran)
	if ran.ExceptionDetails != nil {
		t.Fatalf("the page throws %s", ran.ExceptionDetails.Exception.Description)
	}
	if result != nil {
		if err := json.Unmarshal(ran.Result.Value, result); err != nil {
			t.Fatalf("%v: %s", err, ran.Result.Value)
		}
	}
}
