package sops_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/plumb-gitops/plumb/internal/build"
	"github.com/plumb-gitops/plumb/internal/build/sops"
	"github.com/plumb-gitops/plumb/internal/build/sops/sopstest"
)

// entries are those of the Secret keys.
func entries(pairs ...string) build.Decryption {
	d := build.Decryption{From: "Secret 'flux-system/keys'", Keys: map[string][]byte{}}
	for i := 0; i < len(pairs); i += 2 {
		d.Keys[pairs[i]] = []byte(pairs[i+1])
	}
	return d
}

func newDecrypter() *sops.Decrypter { return sops.New(sops.Options{}) }

func unlock(t testing.TB, d build.Decryption) build.Keyring {
	t.Helper()
	keys, err := newDecrypter().Unlock(d)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func encoded(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func TestFile(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	private, pgp := sopstest.PGP(t, "")
	keys := unlock(t, entries("a.agekey", identity, "b.asc", private))
	to := sopstest.Encryption{For: []sopstest.Recipient{age}}
	asBinary := sopstest.Encryption{For: []sopstest.Recipient{age}, Binary: true}
	toPGP := sopstest.Encryption{For: []sopstest.Recipient{pgp}}
	const yaml, json, env, ini = "user: admin\npassword: canary\n", `{"password": "canary"}`, "user=admin\npassword=canary\n", "[a]\npassword = canary\n"
	tests := map[string]struct {
		content     string
		name        string
		environment bool
		// want is what is in the file; nothing where it counts as not encrypted.
		want string
	}{
		"YAML":                                  {to.Encrypt(t, "a.yaml", yaml), "a.yaml", false, yaml},
		"YAML, for an OpenPGP key":              {toPGP.Encrypt(t, "a.yaml", yaml), "a.yaml", false, yaml},
		"YAML under a key without an ending":    {to.Encrypt(t, "a.yaml", yaml), "config", false, yaml},
		"JSON":                                  {to.Encrypt(t, "a.json", json), "a.json", false, "{\n\t\"password\": \"canary\"\n}\n"},
		"JSON without spaces":                   {strings.NewReplacer("\n", "", "\t", "", `": "`, `":"`).Replace(to.Encrypt(t, "a.json", json)), "a.json", false, "{\n\t\"password\": \"canary\"\n}\n"},
		"JSON under a key without an ending":    {to.Encrypt(t, "a.json", json), "config", false, "{\n\t\"password\": \"canary\"\n}\n"},
		"JSON of a registry's credentials":      {to.Encrypt(t, "a.json", json), ".dockerconfigjson", false, "{\n\t\"password\": \"canary\"\n}\n"},
		"dotenv":                                {to.Encrypt(t, "a.env", env), "a.env", false, env},
		"an environment with another name":      {to.Encrypt(t, "a.env", env), "variables.txt", true, env},
		"INI":                                   {to.Encrypt(t, "a.ini", ini), "a.ini", false, "[a]\npassword = canary\n"},
		"a binary file":                         {to.Encrypt(t, "token", "canary\x00\xff\n"), "token", false, "canary\x00\xff\n"},
		"a binary file with an unknown ending":  {asBinary.Encrypt(t, "a.pem", "canary"), "a.pem", false, "canary"},
		"an empty value":                        {to.Encrypt(t, "a.yaml", "a: \"\"\nb: canary\n"), "a.yaml", false, "a: \"\"\nb: canary\n"},
		"a file that is not encrypted":          {yaml, "a.yaml", false, ""},
		"a binary file that is not encrypted":   {"\x00\x01", "token", false, ""},
		"YAML that only speaks of it":           {"mac: ENC[\ntext: x\n", "a.yaml", false, ""},
		"YAML for an environment, as in Flux":   {to.Encrypt(t, "a.yaml", yaml), "variables", true, ""},
		"YAML that is called JSON, as in Flux":  {to.Encrypt(t, "a.yaml", yaml), "a.json", false, ""},
		"JSON that is called YAML, which it is": {to.Encrypt(t, "a.json", json), "a.yaml", false, "password: canary\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opened, encrypted, err := keys.File(context.Background(), build.EncryptedFile{Content: []byte(tt.content), Name: tt.name, Environment: tt.environment})
			if err != nil {
				t.Fatal(err)
			}
			if encrypted != (tt.want != "") {
				t.Fatalf("encrypted: %v", encrypted)
			}
			if diff := cmp.Diff(tt.want, string(opened.Content)); diff != "" {
				t.Errorf("content (-want +got):\n%s", diff)
			}
			if values := strings.Join(opened.Values, "|"); encrypted && !strings.Contains(values, "canary") {
				t.Errorf("values are %q", values)
			}
		})
	}
}

func TestObject(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	keys := unlock(t, entries("a.agekey", identity))
	to := sopstest.Encryption{For: []sopstest.Recipient{age}}
	data := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: "^(data|stringData)$"}
	secret := func(pairs ...string) string {
		values := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			values[pairs[i]] = encoded(pairs[i+1])
		}
		text, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "generation": 1 << 60}, "data": values})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	sealed := data.Encrypt(t, "a.json", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"canary","n":7}}`)
	tests := map[string]struct {
		object string
		want   string
	}{
		"an object of any kind": {sealed, `{"apiVersion":"v1","data":{"a":"canary","n":7},"kind":"ConfigMap","metadata":{"name":"c"}}`},
		"an object that kustomize has labelled and moved": {
			strings.Replace(sealed, `"name": "c"`, `"name": "c", "namespace": "n", "labels": {"a": "b"}`, 1),
			`{"apiVersion":"v1","data":{"a":"canary","n":7},"kind":"ConfigMap","metadata":{"labels":{"a":"b"},"name":"c","namespace":"n"}}`,
		},
		"values of a Secret that are files, beside one that is none": {
			secret("token", to.Encrypt(t, "token", "canary"), "a.yaml", to.Encrypt(t, "a.yaml", "a: canary\n"), "open", "x"),
			secret("token", "canary", "a.yaml", "a: canary\n", "open", "x"),
		},
		"values in forms that their keys do not tell": {
			secret("a", to.Encrypt(t, "a.yaml", "a: canary\n"), "b", to.Encrypt(t, "a.env", "a=canary\n"), "c", to.Encrypt(t, "a.ini", "[x]\na = canary\n")),
			secret("a", "a: canary\n", "b", "a=canary\n", "c", "[x]\na = canary\n"),
		},
		"a value in another form than its key tells": {
			secret("a.json", to.Encrypt(t, "a.yaml", "a: canary\n")),
			secret("a.json", "{\n\t\"a\": \"canary\"\n}\n"),
		},
		"a Secret that is not encrypted":             {secret("a", "b"), ""},
		"a Secret with values that are not encoded":  {`{"apiVersion":"v1","kind":"Secret","data":{"a":"§"}}`, ""},
		"a ConfigMap with a file, which is left":     {`{"apiVersion":"v1","kind":"ConfigMap","data":{"a":"mac: ENC[ sops"}}`, ""},
		"an object that has a field of that name":    {`{"apiVersion":"v1","kind":"X","sops":"yes"}`, ""},
		"an object of a kind that has such a field":  {`{"apiVersion":"v1","kind":"X","sops":{"kms":[]}}`, ""},
		"an object that is named after it":           {`{"apiVersion":"v1","kind":"X","metadata":{"name":"sops"}}`, ""},
		"a Secret of another group, as Flux leaves ": {strings.Replace(secret("a", to.Encrypt(t, "token", "canary")), `"v1"`, `"example.com/v1"`, 1), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			plain, encrypted, err := keys.Object(context.Background(), []byte(tt.object))
			if err != nil {
				t.Fatal(err)
			}
			if encrypted != (tt.want != "") {
				t.Fatalf("encrypted: %v", encrypted)
			}
			if encrypted {
				if diff := cmp.Diff(compact(t, tt.want), compact(t, string(plain))); diff != "" {
					t.Errorf("object (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// compact is JSON with sorted keys, without spaces, and with its numbers as they are.
func compact(t *testing.T, text string) string {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestCannotOpen(t *testing.T) {
	t.Parallel()
	identity, age := sopstest.Age(t)
	_, other := sopstest.Age(t)
	private, pgp := sopstest.PGP(t, "")
	_, otherPGP := sopstest.PGP(t, "")
	ours := entries("a.agekey", identity, "b.asc", private)
	to := func(recipients ...sopstest.Recipient) sopstest.Encryption {
		return sopstest.Encryption{For: recipients}
	}
	const yaml = "a: canary\nb: open\n"
	partly := sopstest.Encryption{For: []sopstest.Recipient{age}, Only: "^a$"}
	tests := map[string]struct {
		keys    build.Decryption
		content string
		want    string // parts, separated by |
	}{
		"no keys at all": {build.Decryption{}, to(age).Encrypt(t, "a.yaml", yaml),
			"there are no keys: it is encrypted for age age1|(there is no entry *.agekey); name a Secret with one of them in spec.decryption.secretRef"},
		"another age key": {ours, to(other).Encrypt(t, "a.yaml", yaml),
			"no key of Secret 'flux-system/keys' opens it: it is encrypted for age age1|(no age identity fits); add the key of one of them to the Secret"},
		"another OpenPGP key": {ours, to(otherPGP).Encrypt(t, "a.yaml", yaml), "OpenPGP key |(no OpenPGP key fits)"},
		"several other keys":  {ours, to(other, otherPGP).Encrypt(t, "a.yaml", yaml), "age age1|(no age identity fits), OpenPGP key |(no OpenPGP key fits); add"},
		"no key of the kind":  {entries("a.agekey", identity), to(pgp).Encrypt(t, "a.yaml", yaml), "(there is no entry *.asc)"},
		"a damaged data key": {ours, strings.Replace(to(age).Encrypt(t, "a.yaml", yaml), "-----BEGIN AGE", "-----BEGIN NO", 1),
			"(no age identity fits)"},
		"a value that was changed in the open": {ours, strings.Replace(partly.Encrypt(t, "a.yaml", yaml), "b: open", "b: changed", 1),
			"its checksum (MAC) does not fit|sops edit"},
		"a value that was moved": {ours, strings.Replace(to(age).Encrypt(t, "a.yaml", yaml), "a: ENC", "c: ENC", 1),
			"a value in it cannot be decrypted: it was moved or changed"},
		"a value that was put in the open": {ours, "c: canary\n" + to(age).Encrypt(t, "a.yaml", yaml),
			"a value in it is not encrypted and has to be"},
		"a number that was put in the open": {ours, "c: 4711\n" + to(age).Encrypt(t, "a.yaml", yaml), "a value in it cannot be decrypted"},
		"no checksum":                       {ours, strings.Replace(to(age).Encrypt(t, "a.yaml", yaml), "mac: ENC[", "mac: ENC[x", 1), "its checksum (MAC) does not fit"},
		"an alias":                          {ours, "c: &c [1]\nd: *c\n" + to(age).Encrypt(t, "a.yaml", yaml), "line 2 has an alias"},
		"no YAML":                           {ours, "c: [\n" + to(age).Encrypt(t, "a.yaml", yaml), "it is no YAML document that SOPS can read"},
		"too much":                          {ours, to(age).Encrypt(t, "a.yaml", yaml) + "# " + strings.Repeat("x", 5<<20), "bytes, and what is encrypted may have 5242880: split it"},
		"too many keys":                     {ours, strings.Replace(to(age).Encrypt(t, "a.yaml", yaml), "    age:\n", "    age:\n"+strings.Repeat("        - recipient: x\n          enc: x\n", 100), 1), "it is encrypted for 101 keys, the limit is 100"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, err := unlock(t, tt.keys).File(context.Background(), build.EncryptedFile{Content: []byte(tt.content), Name: "a.yaml"})
			if err == nil {
				t.Fatal("it was opened")
			}
			for part := range strings.SplitSeq(tt.want, "|") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("error is %q, want one with %q", err, part)
				}
			}
			for _, secret := range []string{"canary", "4711", strings.TrimSpace(identity[strings.Index(identity, "AGE-"):])} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error shows %q: %v", secret, err)
				}
			}
		})
	}
}

func TestObjectFailuresNameTheKey(t *testing.T) {
	t.Parallel()
	_, age := sopstest.Age(t)
	sealed := sopstest.Encryption{For: []sopstest.Recipient{age}}.Encrypt(t, "token", "canary")
	_, _, err := unlock(t, entries()).Object(context.Background(), fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Secret","data":{"token":%q}}`, encoded(sealed)))
	if err == nil || !strings.HasPrefix(err.Error(), "data.token: no key of Secret") {
		t.Errorf("error is %v", err)
	}
}

func TestUnlock(t *testing.T) {
	t.Parallel()
	identity, _ := sopstest.Age(t)
	private, _ := sopstest.PGP(t, "")
	second, _ := sopstest.PGP(t, "")
	locked, _ := sopstest.PGP(t, "passphrase")
	public := "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nmDMEcanary\n-----END PGP PUBLIC KEY BLOCK-----\n"
	tests := map[string]struct {
		keys build.Decryption
		want string // of the error, nothing where it is taken
	}{
		"nothing":                      {build.Decryption{}, ""},
		"entries of other names":       {entries("readme", "canary", "sops.other", "canary", "a.txt", "canary"), ""},
		"several keys":                 {entries("a.agekey", identity, "b.asc", private+"\n"+second), ""},
		"an age identity that is none": {entries("a.agekey", "AGE-SECRET-KEY-1canary"), `entry "a.agekey" of Secret 'flux-system/keys': it has no age identities`},
		"an empty age identity":        {entries("a.agekey", ""), `entry "a.agekey"`},
		"a plugin of age":              {entries("a.agekey", "AGE-PLUGIN-CANARY-1XYZ"), "identities of age plugins are refused"},
		"an OpenPGP key that is none":  {entries("a.asc", "canary"), "it has no private OpenPGP key"},
		"an OpenPGP key that is broken": {entries("a.asc", strings.Replace(private, "\n\n", "\n\ncanary", 1)),
			"it is no armored OpenPGP key"},
		"a public OpenPGP key":               {entries("a.asc", public), `entry "a.asc"`},
		"an OpenPGP key with a passphrase":   {entries("a.asc", locked), "is protected by a passphrase"},
		"credentials for AWS":                {entries("sops.aws-kms", "aws_access_key_id: a\naws_secret_access_key: b\n"), ""},
		"credentials for AWS that lack":      {entries("sops.aws-kms", "aws_access_key_id: canary\n"), "it needs aws_access_key_id and aws_secret_access_key"},
		"credentials for AWS that are none":  {entries("sops.aws-kms", "canary: [\n"), "it is no valid YAML"},
		"a client of Azure":                  {entries("sops.azure-kv", "tenantId: t\nclientId: c\nclientSecret: s\n"), ""},
		"a client of Azure as az prints it":  {entries("sops.azure-kv", `{"tenant":"t","appId":"c","password":"s"}`), ""},
		"the identity of the machine, Azure": {entries("sops.azure-kv", "clientId: canary\n"), "it needs tenantId and clientId"},
		"a client of Azure that lacks":       {entries("sops.azure-kv", "tenantId: t\nclientId: canary\n"), "it needs tenantId and clientId"},
		"an account of Google":               {entries("sops.gcp-kms", `{"type":"service_account"}`), ""},
		"a file of the operator, for Google": {entries("sops.gcp-kms", `{"type":"external_account","credential_source":{"file":"/canary"}}`), `credentials of type "external_account" are refused`},
		"no JSON for Google":                 {entries("sops.gcp-kms", "canary"), "it is no valid JSON"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := newDecrypter().Unlock(tt.keys)
			switch {
			case tt.want == "" && err == nil:
			case err == nil || tt.want == "":
				t.Errorf("error is %v, want %q", err, tt.want)
			case !strings.Contains(err.Error(), tt.want) || strings.Contains(strings.ToLower(err.Error()), "canary"):
				t.Errorf("error is %q, want one with %q and without what is in the entry", err, tt.want)
			}
		})
	}
}
