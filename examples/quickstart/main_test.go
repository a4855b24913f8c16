package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
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
		in.Close()
		done <- err
	}()
	stop = func() error {
		cancel()
		go io.Copy(io.Discard, out)
		return <-done
	}
	t.Cleanup(func() { cancel(); out.Close() })
	return bufio.NewScanner(out), stop
}

func TestJSONIsOneLineForScripts(t *testing.T) {
	lines, stop := start(t, "-json")
	if !lines.Scan() {
		t.Fatal("nothing was printed")
	}
	var ready struct {
		URL         string            `json:"url"`
		Credentials map[string]string `json:"credentials"`
	}
	if err := json.Unmarshal(lines.Bytes(), &ready); err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, ready.URL+"/notes", nil)
	req.Header.Set("X-API-Key", ready.Credentials["api_key"])
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 200 || !strings.HasPrefix(string(body), `{"status_code":200,"message":"OK","data":[]`) {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if err := stop(); err != nil {
		t.Errorf("it did not end cleanly: %v", err)
	}
	if lines.Scan() {
		t.Errorf("a second line: %s", lines.Text())
	}
}

// TestTheBannersCommandsDoWhatTheySay pastes every command of the banner into a
// shell.
func TestTheBannersCommandsDoWhatTheySay(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed")
	}
	lines, stop := start(t)
	var printed []string
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Ctrl-C") {
		printed = append(printed, lines.Text())
	}
	status := regexp.MustCompile(`HTTP/1\.1 (\d{3})`)
	want := trials("", credentials{})
	n := 0
	for i, line := range printed {
		if !strings.HasPrefix(line, "# ") {
			continue
		}
		if n == len(want) || line != "# "+want[n].about {
			t.Fatalf("unexpected: %s", line)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		out, err := exec.CommandContext(ctx, "sh", "-c", strings.ReplaceAll(printed[i+1], "curl -i", "curl -si")).CombinedOutput()
		cancel()
		all := status.FindAllStringSubmatch(string(out), -1)
		if err != nil || len(all) == 0 {
			t.Fatalf("%s: %v\n%s", printed[i+1], err, out)
		}
		if got := all[len(all)-1][1]; got != strconv.Itoa(want[n].status) {
			t.Errorf("%s\nanswered %s, want %d\n%s", line, got, want[n].status, out)
		}
		n++
	}
	if n != len(want) {
		t.Errorf("%d commands in the banner, want %d", n, len(want))
	}
	if err := stop(); err != nil {
		t.Errorf("it did not end cleanly: %v", err)
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
