package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// start runs the program on a free port and returns what it prints.
func start(t *testing.T, args ...string) (lines *bufio.Scanner, stop func() error) {
	t.Helper()
	out, in := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		err := run(ctx, append([]string{"-addr", "127.0.0.1:0"}, args...), in)
		_ = in.Close()
		done <- err
	}()
	stop = func() error {
		cancel()
		go func() { _, _ = io.Copy(io.Discard, out) }()
		return <-done
	}
	t.Cleanup(func() { cancel(); _ = out.Close() })
	return bufio.NewScanner(out), stop
}

type ready struct {
	URL         string            `json:"url"`
	Credentials map[string]string `json:"credentials"`
}

func readiness(t *testing.T, lines *bufio.Scanner) (r ready) {
	t.Helper()
	if !lines.Scan() {
		t.Fatal("nothing was printed")
	}
	if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestASessionFromLoginToLogout(t *testing.T) {
	lines, _ := start(t, "-json")
	ready := readiness(t, lines)
	var response struct {
		Data struct {
			Access  string `json:"access_token"`
			Refresh string `json:"refresh_token"`
		} `json:"data"`
	}
	call := func(want int, method, path, bearer, body string) {
		t.Helper()
		r, _ := http.NewRequestWithContext(t.Context(), method, ready.URL+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		if bearer != "" {
			r.Header.Set("Authorization", "Bearer "+bearer)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = res.Body.Close() }()
		text, _ := io.ReadAll(res.Body)
		if res.StatusCode != want {
			t.Errorf("%s %s: %d, want %d: %s", method, path, res.StatusCode, want, text)
		}
		_ = json.Unmarshal(text, &response)
	}
	refresh := func() string { return fmt.Sprintf(`{"refresh_token":%q}`, response.Data.Refresh) }

	call(401, "POST", "/login", "", `{"user":"demo","password":"guess"}`)
	call(200, "POST", "/login", "", fmt.Sprintf(`{"user":%q,"password":%q}`, ready.Credentials["user"], ready.Credentials["password"]))
	first := response.Data
	call(200, "GET", "/notes", first.Access, "")
	call(201, "POST", "/api-keys", first.Access, `{"name":"laptop"}`)
	call(401, "POST", "/api-keys", ready.Credentials["api_key"], `{"name":"laptop"}`)
	call(200, "POST", "/refresh", "", refresh())
	second := response.Data
	if second.Access == first.Access || second.Refresh == first.Refresh {
		t.Error("the refresh did not change the tokens")
	}
	call(200, "GET", "/api-keys", second.Access, "")
	call(200, "POST", "/logout", "", refresh())
	call(401, "GET", "/notes", first.Access, "")
	call(401, "GET", "/notes", second.Access, "")
	call(401, "POST", "/refresh", "", refresh())
}

func TestJSONIsOneLineForScripts(t *testing.T) {
	lines, stop := start(t, "-json")
	ready := readiness(t, lines)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, ready.URL+"/notes", nil)
	req.Header.Set("X-API-Key", ready.Credentials["api_key"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || !strings.HasPrefix(string(body), `{"status_code":200,"message":"OK","data":[]`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if err := stop(); err != nil {
		t.Errorf("the server did not end cleanly: %v", err)
	}
	if lines.Scan() {
		t.Errorf("a second line: %s", lines.Text())
	}
}

// TestTheBannersCommandsDoWhatTheySay pastes every command of the banner into one
// shell.
func TestTheBannersCommandsDoWhatTheySay(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("USHER_REQUIRE_SERVICES") == "1" {
			t.Fatal(err)
		}
		t.Skip("curl is not installed")
	}
	lines, stop := start(t)
	var printed []string
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		printed = append(printed, lines.Text())
	}
	want := trials("", credentials{})
	var commands, script []string
	for i, line := range printed {
		if !strings.HasPrefix(line, "# ") {
			continue
		}
		if n := len(commands); n == len(want) || line != "# "+want[n].about {
			t.Fatalf("unexpected: %s", line)
		}
		commands = append(commands, printed[i+1])
		script = append(script, strings.ReplaceAll(printed[i+1], "curl -i ", "curl -isS "), "echo; echo "+mark)
	}
	if len(commands) != len(want) {
		t.Fatalf("%d commands in the banner, want %d", len(commands), len(want))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "sh", "-c", strings.Join(script, "\n")).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	status := regexp.MustCompile(`HTTP/1\.1 (\d{3})`)
	responses := strings.Split(string(out), mark+"\n")
	for n, want := range want {
		all := status.FindAllStringSubmatch(responses[n], -1)
		if len(all) == 0 || all[len(all)-1][1] != strconv.Itoa(want.status) {
			t.Errorf("# %s\n%s\nthe last status is not %d:\n%s", want.about, commands[n], want.status, responses[n])
		}
		if !strings.Contains(responses[n], want.shows) {
			t.Errorf("# %s\n%s\ndoes not show %s:\n%s", want.about, commands[n], want.shows, responses[n])
		}
	}
	if err := stop(); err != nil {
		t.Errorf("the server did not end cleanly: %v", err)
	}
}

// mark separates the outputs of two commands.
const mark = "== the next command =="

// TestTheSetUpIsShort bounds the file that sets up usher, and keeps the set-up there.
func TestTheSetUpIsShort(t *testing.T) {
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	setUp := regexp.MustCompile(`usher\.Must\(|Config\{`)
	for _, name := range sources {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "server.go" {
			if found := setUp.Find(source); found != nil {
				t.Errorf("%s has %s, which belongs in server.go", name, found)
			}
			continue
		}
		if n := bytes.Count(source, []byte("\n")); n > 100 {
			t.Errorf("%s has %d lines, want at most 100", name, n)
		}
		if n := bytes.Count(source, []byte("if err != nil")); n > 3 {
			t.Errorf("%s has %d times if err != nil, want at most 3", name, n)
		}
		for line := range bytes.Lines(source) {
			if n := len(bytes.ReplaceAll(line, []byte("\t"), []byte("    "))); n > 121 {
				t.Errorf("%s has a line of %d columns, want at most 120: %s", name, n-1, line)
			}
		}
	}
}

func TestABadAddressIsAnError(t *testing.T) {
	if err := run(t.Context(), []string{"-addr", "256.0.0.1:1"}, io.Discard); err == nil {
		t.Error("no error")
	}
	if err := run(t.Context(), []string{"-nonsense"}, io.Discard); err == nil {
		t.Error("no error for an unknown flag")
	} else if !strings.Contains(fmt.Sprint(err), "nonsense") {
		t.Error(err)
	}
}
