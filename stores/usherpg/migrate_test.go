package usherpg_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/usher-go/usher"
	"github.com/usher-go/usher/internal/servers"
	"github.com/usher-go/usher/internal/storetest"
	"github.com/usher-go/usher/ratelimit"
	"github.com/usher-go/usher/stores/usherpg"
)

func TestOpenReportsEveryFaultOfItsConfig(t *testing.T) {
	pool := new(pgxpool.Pool)
	for name, c := range map[string]struct {
		config usherpg.Config
		fields []string
	}{
		"nothing is set":             {usherpg.Config{}, []string{"Pool"}},
		"the schema is too long":     {usherpg.Config{Pool: pool, Schema: strings.Repeat("x", 64)}, []string{"Schema"}},
		"the schema has a zero byte": {usherpg.Config{Pool: pool, Schema: "a\x00b"}, []string{"Schema"}},
		"the schema is PostgreSQL's": {usherpg.Config{Schema: "pg_catalog"}, []string{"Pool", "Schema"}},
		"the default is valid":       {usherpg.Config{Pool: pool}, nil},
		"a schema of 63 bytes":       {usherpg.Config{Pool: pool, Schema: strings.Repeat("x", 63)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := usherpg.Open(c.config)
			var got []string
			if joined, ok := err.(interface{ Unwrap() []error }); ok {
				for _, err := range joined.Unwrap() {
					fault, _ := errors.AsType[*usher.ConfigError](err)
					got = append(got, strings.TrimPrefix(fault.Field, "usherpg.Config."))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.fields) {
				t.Errorf("faults of %v, want %v", got, c.fields)
			}
			if c.fields != nil && usherpg.Migrate(t.Context(), c.config) == nil {
				t.Error("Migrate accepts it")
			}
		})
	}
}

// Every function that a program calls keeps its own search_path, so that no object of the
// caller's is found in place of one of usher, and has a version in its name.
func TestMigrationsKeepTheirSearchPathAndNameVersions(t *testing.T) {
	files, err := fs.Glob(usherpg.Migrations, "migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("files %v, error %v", files, err)
	}
	versioned := regexp.MustCompile(`^[a-z_]+_v[0-9]+$`)
	_, pool := migrated(t)
	rows, err := pool.Query(t.Context(), `SELECT proname, coalesce(proconfig::text, ''), provolatile = 'i' OR proname ~ '^(lock|keep|places_of|tidy|corrupt|microseconds|check_record)_'
		FROM pg_proc WHERE pronamespace = 'usher'::regnamespace`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var name, config string
		var inner bool
		if err := rows.Scan(&name, &config, &inner); err != nil {
			t.Fatal(err)
		}
		if !versioned.MatchString(name) {
			t.Errorf("the function %s has no version in its name", name)
		}
		if !inner && !strings.Contains(config, "search_path=usher, pg_temp") {
			t.Errorf("the function %s has the settings %q", name, config)
		}
	}
}

func TestProgramsMayMigrateAtTheSameTime(t *testing.T) {
	s := servers.Postgres(t)
	c := usherpg.Config{Pool: connect(t, s.Addr)}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := usherpg.Migrate(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := usherpg.Migrate(t.Context(), c); err != nil {
		t.Errorf("again: %v", err)
	}
	p := open(t, c.Pool)
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
	if n := count(t, c.Pool, "SELECT count(*) FROM usher.versions"); n != 15 {
		t.Errorf("%d versions are recorded, want 15", n)
	}
}

// A schema may have any name, and two of them have nothing in common.
func TestSchemasAreApart(t *testing.T) {
	s := servers.Postgres(t)
	pool := connect(t, s.Addr)
	var stores []ratelimit.Store
	for _, schema := range []string{"usher", `We"ird; DROP TABLE x; --`, "Usher"} {
		c := usherpg.Config{Pool: pool, Schema: schema}
		if err := usherpg.Migrate(t.Context(), c); err != nil {
			t.Fatalf("%s: %v", schema, err)
		}
		p, err := usherpg.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Check(t.Context()); err != nil {
			t.Errorf("%s: %v", schema, err)
		}
		stores = append(stores, p.Limits())
	}
	for i, s := range stores {
		if d := take(t, s, ratelimit.RollingWindow(1, time.Hour)); !d.Admitted {
			t.Errorf("schema %d: refused for what another schema has charged", i)
		}
		if d := take(t, s, ratelimit.RollingWindow(1, time.Hour)); d.Admitted {
			t.Errorf("schema %d: admitted twice", i)
		}
	}
	if n := count(t, pool, `SELECT count(*) FROM usher.limits`); n != 1 {
		t.Errorf("usher has %d limits, want 1", n)
	}
}

func TestObjectsOfOthersAreNotUsed(t *testing.T) {
	_, pool := migrated(t)
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for _, sql := range []string{
		"CREATE TEMP TABLE limits (policy text, key bytea, usages usher.usage[], expires bigint)",
		"CREATE SCHEMA other", "CREATE TABLE other.limits (LIKE usher.limits)", "SET search_path TO other, public",
		`SELECT * FROM usher.take_v2(1, 1, NULL, '{p}', '{k}', '{1}'::smallint[], '{1}', '{1}', '{1000000}', '{""}', '{1}', '{0}', '{f}', '{0}', '{0}', '{0}', '{f}', false)`,
	} {
		if _, err := conn.Exec(t.Context(), sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	if n := count(t, pool, "SELECT count(*) FROM usher.limits"); n != 1 {
		t.Errorf("usher has %d limits, want 1", n)
	}
}

func TestASchemaThatIsNotSetUpIsReported(t *testing.T) {
	s := servers.Postgres(t)
	pool := connect(t, s.Addr)
	p := open(t, pool)
	for name, call := range calls(p) {
		storetest.WantError(t, name, call(t.Context()), usher.ErrSchema)
	}
	wantCheck(t, p, usher.ErrSchema, "call usherpg.Migrate")
}

func TestASchemaOfANewerVersion(t *testing.T) {
	for _, c := range []struct {
		name   string
		serves int
		want   error
	}{
		{"that serves this one is used", 15, nil},
		{"that does not is refused", 16, usher.ErrSchema},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, pool := migrated(t)
			p := open(t, pool)
			exec(t, pool, fmt.Sprintf("INSERT INTO usher.versions (version, serves) VALUES (16, %d)", c.serves))
			err := usherpg.Migrate(t.Context(), usherpg.Config{Pool: pool})
			if c.want == nil {
				if err != nil {
					t.Errorf("Migrate: %v", err)
				}
				if err := p.Check(t.Context()); err != nil {
					t.Errorf("Check: %v", err)
				}
				return
			}
			storetest.WantError(t, "Migrate", err, c.want)
			wantCheck(t, p, c.want, "deploy a newer build")
		})
	}
}

// A role of the application needs the privileges that Migrate documents, and no others.
func TestDocumentedPrivilegesAreEnough(t *testing.T) {
	s, pool := migrated(t)
	exec(t, pool, "CREATE ROLE app LOGIN")
	as := connect(t, s.Addr, func(c *pgxpool.Config) { c.ConnConfig.User = "app" })
	p := open(t, as)
	storetest.WantError(t, "without privileges", calls(p)["Take"](t.Context()), usher.ErrSchema)
	for _, sql := range []string{
		"GRANT USAGE ON SCHEMA usher TO app",
		"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA usher TO app",
		"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA usher TO app",
	} {
		exec(t, pool, sql)
	}
	for name, call := range calls(p) {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := p.Check(t.Context()); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// wantCheck fails the test unless Check returns this error, with advice.
func wantCheck(t *testing.T, p *usherpg.Postgres, want error, advice string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	err := p.Check(ctx)
	storetest.WantError(t, "Check", err, want)
	if err != nil && !strings.Contains(err.Error(), advice) {
		t.Errorf("Check: %q, want it to say %q", err, advice)
	}
}
