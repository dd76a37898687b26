// Package credentials makes and keeps what the parts of a local control plane
// prove themselves with: a certificate authority, the API server's serving
// certificate, the front proxy's pair, the key that signs service account
// tokens, and bearer tokens for the administrator and the control plane.
//
// Everything is made once per folder and read back afterwards, so that a
// control plane that is started again is the same one to its clients. Private
// keys and tokens are readable by the owner only.
package credentials

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// validity is how long certificates last. A folder is scratch space: ten years
// is longer than any of them is kept.
const validity = 10 * 365 * 24 * time.Hour

// complete marks a folder whose files are all there. It is written last.
const complete = "complete"

// Folder is a folder of credentials, all of them present.
type Folder string

// Files of a Folder.
const (
	CACert         = "ca.crt"
	CAKey          = "ca.key"
	ServerCert     = "apiserver.crt"
	ServerKey      = "apiserver.key"
	ProxyCACert    = "front-proxy-ca.crt"
	ProxyCert      = "front-proxy.crt"
	ProxyKey       = "front-proxy.key"
	ServiceAccount = "service-account.key"
	TokenFile      = "tokens.csv"
)

// ProxyName is the common name in ProxyCert.
const ProxyName = "front-proxy-client"

// Users that have a token in TokenFile.
const (
	Admin             = "admin"
	ControllerManager = "system:kube-controller-manager"
	Scheduler         = "system:kube-scheduler"
	Nodes             = "localcluster:nodes"
)

// Ensure returns the folder dir with all credentials in it. They are made when
// dir does not hold a whole set yet. serviceIP is the address of the service
// "kubernetes", one of the names that the API server answers to.
func Ensure(dir string, serviceIP net.IP) (Folder, error) {
	if _, err := os.Stat(filepath.Join(dir, complete)); err == nil {
		return Folder(dir), nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	m := maker{dir: dir, now: time.Now()}
	ca := m.authority(CACert, CAKey, "localcluster-ca")
	m.issue(ca, ServerCert, ServerKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, serviceIP},
		DNSNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
	})
	proxyCA := m.authority(ProxyCACert, "", "localcluster-front-proxy-ca")
	m.issue(proxyCA, ProxyCert, ProxyKey, &x509.Certificate{
		Subject:     pkix.Name{CommonName: ProxyName},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	m.key(ServiceAccount)
	m.tokens()
	m.write(complete, nil)
	if m.err != nil {
		return "", fmt.Errorf("make credentials in %q: %w", dir, m.err)
	}
	return Folder(dir), nil
}

// Path returns the path of the folder's file name.
func (f Folder) Path(name string) string { return filepath.Join(string(f), name) }

// Token returns the bearer token of user.
func (f Folder) Token(user string) (string, error) {
	data, err := os.ReadFile(f.Path(TokenFile))
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(data)) {
		fields := strings.SplitN(strings.TrimSpace(line), ",", 4)
		if len(fields) == 4 && fields[1] == user {
			return fields[0], nil
		}
	}
	return "", fmt.Errorf("no token for user %q in %q", user, f.Path(TokenFile))
}

// maker makes files until one fails; afterwards it does nothing and err says
// what failed first.
type maker struct {
	dir string
	now time.Time
	err error
}

// pair is a certificate and its private key.
type pair struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// authority makes a self-signed authority. An empty keyFile keeps its key in
// memory only: nothing can be issued by it later.
func (m *maker) authority(certFile, keyFile, name string) pair {
	key := m.key(keyFile)
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return pair{m.sign(certFile, template, pair{template, key}, key), key}
}

// issue makes a key and a certificate for it, signed by ca.
func (m *maker) issue(ca pair, certFile, keyFile string, template *x509.Certificate) {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	m.sign(certFile, template, ca, m.key(keyFile))
}

// sign writes template as a certificate for key's public half, signed by ca.
func (m *maker) sign(file string, template *x509.Certificate, ca pair, key *ecdsa.PrivateKey) *x509.Certificate {
	if m.err != nil {
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		m.err = err
		return nil
	}
	template.SerialNumber = serial
	template.NotBefore = m.now.Add(-time.Hour)
	template.NotAfter = m.now.Add(validity)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		m.err = err
		return nil
	}
	m.write(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		m.err = err
	}
	return cert
}

// key makes a private key and writes it to file, unless file is empty.
func (m *maker) key(file string) *ecdsa.PrivateKey {
	if m.err != nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.err = err
		return nil
	}
	if file == "" {
		return key
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		m.err = err
		return nil
	}
	m.write(file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	return key
}

// tokens writes the API server's token file: token, user, uid, groups.
func (m *maker) tokens() {
	var b strings.Builder
	for _, user := range []struct{ name, group string }{
		{Admin, "system:masters"},
		{ControllerManager, "system:authenticated"},
		{Scheduler, "system:authenticated"},
		{Nodes, "system:masters"},
	} {
		secret := make([]byte, 32)
		if _, err := rand.Read(secret); err != nil {
			m.err = err
			return
		}
		fmt.Fprintf(&b, "%s,%s,%s,%q\n", hex.EncodeToString(secret), user.name, user.name, user.group)
	}
	m.write(TokenFile, []byte(b.String()))
}

func (m *maker) write(file string, data []byte) {
	if m.err == nil {
		m.err = os.WriteFile(filepath.Join(m.dir, file), data, 0o600)
	}
}
